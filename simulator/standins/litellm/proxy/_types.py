"""What a custom authentication returns."""

from dataclasses import dataclass


@dataclass
class UserAPIKeyAuth:
    api_key: str
    user_id: str
