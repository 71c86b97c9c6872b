"""One flight from kickoff to its pages, without any control system."""
