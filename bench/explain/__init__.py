"""What a CLIP looks at, before and after a fit: correspondence, heat maps, importance of image parts."""
