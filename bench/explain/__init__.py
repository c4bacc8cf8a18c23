"""What a CLIP looks at, before and after a fit: correspondence, heat maps, and the importance of image
parts.
"""
