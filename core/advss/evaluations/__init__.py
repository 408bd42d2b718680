"""What is measured of a classifier: accuracy, clean and attacked; certificates; transfer; averages of several."""
