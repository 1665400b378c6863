"""Fake servers of vendors, each with the vendor's real format. The model's name selects the answer; requests are validated.

A fake knows nothing of Sidetone. Each vendor's own SDK is its referee: what the SDK takes from the fake is the vendor's
format, and what the SDK's types refuse the fake refuses too.
"""
