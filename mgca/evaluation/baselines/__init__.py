"""Other methods under the same evaluation: GroupViT and TCL as published."""
