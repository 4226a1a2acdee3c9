"""Another issuer: an https server of one document, with a certificate of its own."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support import tokens


@dataclass
class Issuer:
    """What it answers with, and how often it was asked."""

    url: str
    certificate: Path
    document: bytes
    status: int = 200
    location: str = ""
    coding: str = ""
    asked: int = 0
    heard: bytes = b""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.heard = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.document)}\r\n"
            head += f"Location: {self.location}\r\n" if self.location else ""
            head += f"Content-Encoding: {self.coding}\r\n" if self.coding else ""
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + self.document)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Issuer]:
    certificate, key = _certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    issuer = Issuer("", certificate, tokens.key_set("rsa-1"))
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0, ssl=context)
    async with server:
        issuer.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        yield issuer


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = tokens.ec_key(1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer of the tests")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(built.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
