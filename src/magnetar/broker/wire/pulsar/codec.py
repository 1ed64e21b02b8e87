"""The hot commands: SEND, SEND_RECEIPT, MESSAGE, ACK, FLOW, thousands at a time.

    walk             the frames of one socket read          walker.py   or  _walker.pyx
    encode_receipts  the receipts of one commit             replies.py  or  _walker.pyx
    encode_messages  the messages of one delivery           replies.py  or  _walker.pyx

Two implementations of the same three functions: plain Python, and compiled where the extension
could be built. They do the same to the byte; which of them runs is decided here, once.
"""

from magnetar.broker import compiled
from magnetar.broker.wire.pulsar import replies, walker

walk = walker.walk
encode_receipts = replies.encode_receipts
encode_messages = replies.encode_messages

if kernel := compiled.load("magnetar.broker.wire.pulsar._walker"):
    walk = kernel.walk
    encode_receipts = kernel.encode_receipts
    encode_messages = kernel.encode_messages
