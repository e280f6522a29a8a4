"""What must hold: after every step, at the end, and who got what."""
