"""Scans as people have them: found, read, checked and laid on one grid."""
