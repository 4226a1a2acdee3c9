from stockify.engines.servers import slots_of


def test_nodes_of_a_cluster_have_the_password_of_the_one_asked() -> None:
    answer = [[0, 99, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.2", 7001, b"id"]], [100, 100, [b"", 7]]]
    first, second = slots_of(answer, "redis://me:s3cr3t@10.0.0.9:7000/0")
    assert [node.name for node in first.nodes] == ["10.0.0.1:7000", "10.0.0.2:7001"]
    assert first.nodes[1].url == "redis://me:s3cr3t@10.0.0.2:7001/0"
    assert second.nodes[0].name == "10.0.0.9:7"  # it does not know its own address
