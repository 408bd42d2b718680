"""Data: sources give uint8 images and labels, splits divide them, the loader makes batches on the device."""
