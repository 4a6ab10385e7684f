"""What `fsdriver.filesystem` is made of: URL resolution, file objects, listings and transfers of the fsspec face."""
