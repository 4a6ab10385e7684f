"""The mount: the tree served to the kernel over its FUSE protocol, without libfuse.

``protocol`` holds the wire formats, ``device`` mounting, ``session`` the request loop, ``inodes`` and ``handles`` what the
kernel knows, ``operations`` one module per family of requests, ``daemon`` the process around it all.
"""
