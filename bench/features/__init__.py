"""The features: every image is encoded once per view, for all methods, shots and seeds.

This room finds out which images a run still lacks, decodes them in worker processes, passes them through the
image tower, and keeps the results in a store on disk that several processes can share. It imports the ground,
``bench.data`` and ``bench.clip``, and no other part of bench; torch is loaded only when something is encoded.
It never knows a method, a split or a record, and it never reads a damaged or half-written file.
"""
