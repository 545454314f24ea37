"""What goes in and out."""

from pydantic import BaseModel


class Attributes(BaseModel):
    island: str
    bill_length_mm: float | None
    bill_depth_mm: float | None
    flipper_length_mm: float | None
    body_mass_g: float | None
    sex: str | None


class LearnRequest(BaseModel):
    attributes: Attributes
    species: str


class PredictResponse(BaseModel):
    species: str | None
    predicted: int
    learned: int


class LearnResponse(BaseModel):
    status: str
    predicted: int
    learned: int
