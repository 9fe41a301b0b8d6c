"""What only the command line does; imports anything but a stage."""
