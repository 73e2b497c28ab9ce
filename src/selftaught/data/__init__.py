"""From whatever the user calls their data to batch t: source -> scan -> index -> order -> loader; labels beside."""
