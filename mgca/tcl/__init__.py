"""TCL (Cha et al., CVPR 2023): the method that MGCA is closest to, for comparison."""
