"""`/v1/collections`: which there are, what each asks of its documents, and how they stand to that."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from starlette.responses import Response

from app.routes import replies
from app.routes.bodies import Flag, Strict, Whole
from app.routes.caller import Admin, Parts, Reader, reply
from app.routes.conditional import NOT_MODIFIED, Known, tagged
from app.routes.route import Exact
from app.types import Principal
from app.wiring import Services
from ingestion.rules import LANGUAGES, RULES, Rule, Rules, RulesReport, rules_json

router = APIRouter(tags=["documents"], route_class=Exact)

Name = Annotated[str, Path(max_length=200, description="The collection's name.")]


def _known_language(name: str) -> str:
    if name not in LANGUAGES:
        raise ValueError(f"is one of {', '.join(LANGUAGES)}")
    return name


Language = Annotated[str, AfterValidator(_known_language)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Characters = Annotated[Whole, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, lt=1)]


class AskedOf(Strict):
    """The rules of a collection. One that is broken warns, unless `refuse` names it."""

    languages: list[Language] = Field([], max_length=20, description="The text is in one of these.")
    min_characters_per_page: Characters | None = Field(None, description="On an average page.")
    min_characters: Characters | None = Field(None, description="Of the whole text, at least.")
    max_characters: Characters | None = Field(None, description="Of the whole text, at most.")
    max_duplicate_share: Share | None = Field(
        None, description="Of paragraphs that another document of the collection, read since, has too."
    )
    max_damage_share: Share | None = Field(
        None, description="Of characters that are undecodable, decoded twice, or of a font without alphabet."
    )
    required_metadata: list[Key] = Field([], max_length=64, description="Keys that say something.")
    notes: Flag = Field(True, description="Tell what had to be left out, such as pages that need OCR.")
    refuse: list[Rule] = Field([], description=f"Which of these refuse: {', '.join(RULES)}.")

    @field_validator("max_characters")
    @classmethod
    def _in_order(cls, most: int | None, others: ValidationInfo) -> int | None:
        least = others.data.get("min_characters")
        if least is not None and most is not None and least > most:
            raise ValueError("less than `min_characters`")
        return most

    def rules(self) -> Rules:
        asked = self.model_dump()
        asked |= {name: tuple(dict.fromkeys(asked[name])) for name in ("languages", "required_metadata")}
        return Rules(**{**asked, "refuse": frozenset(self.refuse)})


@router.get(
    "/v1/collections",
    summary="List collections",
    response_model=replies.CollectionsReply,
    responses=NOT_MODIFIED,
)
async def list_collections(parts: Parts, caller: Reader, known: Known) -> Response:
    """Those of which the key may read something, and how many documents."""
    return tagged(await collections_of(parts, caller), known)


async def collections_of(parts: Services, caller: Principal) -> dict[str, Any]:
    """The collections that the caller can read something of, as they are told."""
    found = await parts.intake.collections(caller.tenant, caller.groups)
    return {"collections": [{"name": one.name, "documents": one.documents} for one in found]}


@router.get(
    "/v1/collections/{name}/rules",
    summary="Show what a collection asks of its documents",
    response_model=replies.RulesReply,
)
async def show(parts: Parts, caller: Reader, name: Name) -> Response:
    return reply(_told(name, await parts.intake.rules(caller.tenant, caller.groups, name)))


@router.put(
    "/v1/collections/{name}/rules",
    summary="Say what a collection asks of its documents",
    response_model=replies.RulesReply,
)
async def put(parts: Parts, caller: Admin, name: Name, body: AskedOf) -> Response:
    """It holds for every document accepted from now on. An empty object asks nothing any more."""
    rules = body.rules()
    await parts.intake.set_rules(caller.tenant, name, rules)
    return reply(_told(name, rules))


@router.get(
    "/v1/collections/{name}/report",
    summary="Show how a collection's documents stand to its rules",
    response_model=replies.RulesReportReply,
)
async def report(parts: Parts, caller: Admin, name: Name) -> Response:
    """By rule: how many documents broke it and were let in or refused, and the ids of the last of them."""
    rules = await parts.intake.rules(caller.tenant, caller.groups, name)
    return reply({**_told(name, rules), **_report_json(await parts.intake.rules_report(caller.tenant, name))})


def _told(name: str, rules: Rules) -> dict[str, Any]:
    return {"collection": name, "rules": rules_json(rules)}


def _report_json(found: RulesReport) -> dict[str, Any]:
    def counted(outcome: str) -> dict[str, Any]:
        counts = (one for one in found.counts if one.outcome == outcome)
        return {one.rule: {"documents": one.documents, "examples": one.examples} for one in counts}

    return {
        "documents": found.documents,
        "with_warnings": found.warned,
        "warned": counted("warned"),
        "refused": counted("refused"),
    }
