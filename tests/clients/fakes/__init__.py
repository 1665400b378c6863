"""Vendors at the socket, each in its own real format: scripted by model name, strict about requests.

A fake knows nothing of Sidetone. Each vendor's own SDK is its referee: what the SDK takes from the fake is the vendor's
format, and what the SDK's types refuse the fake refuses too.
"""
