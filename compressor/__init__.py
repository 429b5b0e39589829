"""Compression front end: prunes and quantizes a Hugging Face BERT, and exports the bundle."""
