"""The caption explorer: type or compose a caption, see what every system makes of it, look closer, keep it.

`Studio` holds the models and answers questions; `Explorer` is the widget, in a notebook's cell or on a page.
"""

from t2ilib.explore.receipts import Receipt, read_receipt, save_picture
from t2ilib.explore.studio import Request, Studio
from t2ilib.explore.widget import Explorer

__all__ = ["Explorer", "Receipt", "Request", "Studio", "read_receipt", "save_picture"]
