"""What an exploration searches, and where its study is kept."""

from dataclasses import dataclass
from pathlib import Path

from compressor.bundle import Bundle, load_bundle
from compressor.recipe_projection import project_bundle
from compressor.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class ExploreRequest:
    """What to search.

    Parameters
    ----------
    model : str
        Path of the bundle.
    device : str
    tokens : int or None
    points : int
        Different points to evaluate; fewer if there are no more.
    storage : str
        SQLAlchemy URL of the database, such as ``postgresql://user@host/database``.
    study : str
        Name of the study in it.
    recipe : Recipe, optional
        What prunes the bundle, which is dense then; nothing is trained.
    """

    model: str
    device: str
    tokens: int | None
    points: int
    storage: str
    study: str
    recipe: Recipe | None = None

    def bundle(self) -> Bundle:
        """The bundle whose accelerators are searched, read and projected anew.

        Raises
        ------
        BundleError, RecipeError
        """
        bundle = load_bundle(Path(self.model))
        return bundle if self.recipe is None else project_bundle(bundle, self.recipe)[0]
