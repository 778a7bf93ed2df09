"""What a check looks at, one file each; `check` calls them in order."""
