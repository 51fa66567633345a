"""Tools of all other packages: files, images, progress, processes, provenance, settings."""
