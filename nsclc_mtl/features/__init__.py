"""What a frozen backbone saw in each tile, and the files it is kept in."""
