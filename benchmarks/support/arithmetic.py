"""How many floating-point operations a LLaVA-NeXT of a given shape needs for given tokens.

A multiplication and an addition count as two, as in a card's matrix rate. Counted are the matrix
products of the vision tower, the projector, the language model's layers and its head; norms,
activations and the sampling are left out: they are far below one percent.
"""

from dataclasses import dataclass

from benchmarks.support.random_model import PATCH_SIZE, Shape
from services.core.images import DEFAULT_IMAGE_SIZE

# A square cover on the published grid: the whole image, and two tiles of which one is all border.
TILES_PER_IMAGE = 3
PATCHES_PER_TILE = (DEFAULT_IMAGE_SIZE // PATCH_SIZE) ** 2


@dataclass(frozen=True, slots=True)
class Work:
    """What a model server did: prompts of alike lengths, summed up.

    `cached_tokens` of the `prompt_tokens` were found in its cache; `images` went through the
    vision tower.
    """

    prompts: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    images: int

    @property
    def new_tokens(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt_tokens - self.cached_tokens

    def flops(self, shape: Shape) -> float:
        """Operations of all of it on a model of this shape."""
        # The first generated token follows from the prompt; every later one is computed in turn.
        decoded = self.generated_tokens - self.prompts
        length = self.prompt_tokens / self.prompts
        start = self.cached_tokens / self.prompts
        end = length + decoded / self.prompts
        attended = self.prompts * (end**2 - start**2) / 2  # each token sees all before it
        return (
            (self.new_tokens + decoded) * _layer_flops(shape)
            + attended * 4 * shape.layers * shape.hidden
            + self.generated_tokens * 2 * shape.hidden * shape.vocabulary
            + self.images * _image_flops(shape)
        )


def kv_bytes_per_token(shape: Shape, bytes_per_value: int = 2) -> int:
    """Memory of one cached token: a key and a value a layer and key-value head."""
    head_size = shape.hidden // shape.heads
    return 2 * shape.layers * shape.kv_heads * head_size * bytes_per_value


def _layer_flops(shape: Shape) -> float:
    """Of one token through all layers, attention scores left out."""
    keys = shape.hidden * shape.kv_heads // shape.heads
    weights = 2 * shape.hidden**2 + 2 * shape.hidden * keys + 3 * shape.hidden * shape.mlp
    return 2.0 * shape.layers * weights


def _image_flops(shape: Shape) -> float:
    tokens = PATCHES_PER_TILE + 1  # and the class token
    weights = 4 * shape.vision_hidden**2 + 2 * shape.vision_hidden * shape.vision_mlp
    used_layers = shape.vision_layers - 1  # the image's features are those before the last layer
    tower = used_layers * (2 * tokens * weights + 4 * tokens**2 * shape.vision_hidden)
    patches = 2 * PATCHES_PER_TILE * 3 * PATCH_SIZE**2 * shape.vision_hidden
    projector = 2 * PATCHES_PER_TILE * (shape.vision_hidden + shape.hidden) * shape.hidden
    return float(TILES_PER_IMAGE * (tower + patches + projector))
