"""What every room uses and none is about: files, images, progress, processes, provenance."""
