"""The regression gate: have the methods got worse than a baseline?"""
