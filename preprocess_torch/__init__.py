"""Videos → keypoint records: a segmenter finds the entities, a tracker follows their points."""
