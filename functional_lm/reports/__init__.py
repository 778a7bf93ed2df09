"""What people look at: the plots of runs, the page of one run, event files."""
