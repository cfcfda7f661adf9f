"""What all tests share."""

import signal


def pytest_configure(config):
    """Heed interrupts, which tests send to commands, also under a parent that ignores them."""
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
