"""What attackers send: images, addresses and titles, built by code and the same every time."""
