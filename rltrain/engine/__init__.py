"""What runs any algorithm: members, learning, stepping, targets. Names none."""
