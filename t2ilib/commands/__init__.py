"""The commands of `t2i` beyond those that `cli.py` holds; the library is imported inside them."""
