"""Scans: from image and mask files to a volume, its radiomics and the cube around the lesion."""
