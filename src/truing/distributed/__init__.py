"""Several processes or machines: the torch.distributed process group and the launcher on Ray."""
