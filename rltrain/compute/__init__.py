"""Where and how tensors are computed: devices, recorded and compiled procedures, CUDA graphs, staging buffers."""
