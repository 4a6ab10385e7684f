"""The libfuse transport: libfuse speaks the kernel's protocol and names files by path.

It serves systems whose kernel protocol is not Linux's own (macOS, the BSDs), and Linux where it is asked for. Each of libfuse's
calls becomes requests of the kernel's protocol to the same `fsdriver.fuse_mount.operations` that the kernel transport serves.
"""
