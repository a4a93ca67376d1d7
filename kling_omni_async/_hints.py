"""What to look at after an error, in the words of a program that uses the library."""

from __future__ import annotations

from enum import StrEnum


class Hint(StrEnum):
    """What its user can do about an error; the command line has its own words for each."""

    NONE = ""
    KEY = "check COMETAPI_KEY"
    ACCOUNT = "check the balance and the plan of the account"
    PERMISSION = "check what the key may do"
    TASK_ID = "check the id, and that the key is of the account that made the task"
    BASE_URL = "check base_url"
    CONNECTION = "check base_url, the network and the proxy"
    PORT = "check base_url: something else may be behind a wrong port"
    CERTIFICATE = "check base_url, the clock and the certificates of this machine"
    PROXY = "check the proxy of the environment, such as HTTPS_PROXY"
    NETWORK = "check the network"
    DESCRIPTORS = "raise the limit of open files, such as by ulimit -n"
    OVERWRITE = "move it away, or pass overwrite=True"
    ALLOW_HOSTS = "if you trust it, add it to PollPolicy.allow_hosts"
    IMAGE_BYTES = "PollPolicy.max_image_bytes allows no more"
