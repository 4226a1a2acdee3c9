"""The shared core: models, kernels, the bus, storage access. Imports no room above it."""
