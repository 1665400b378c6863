//! Disks that are full, files that are torn, calls that are long, and what grows on the disk.
