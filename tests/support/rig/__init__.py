"""What chaos, load and bench share: folders, topics, producers, readers, progress, measures."""
