"""Looking at photos before anything is learned from them; imports pipeline."""
