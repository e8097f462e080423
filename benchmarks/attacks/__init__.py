"""What attackers send: pictures, addresses and titles, built by code and the same every time."""
