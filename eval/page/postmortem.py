"""The draft of a post-mortem as one HTML file, with the course of the evidence as pictures."""

from __future__ import annotations

from eval.page.changed import changes_html
from eval.page.markup import Html, joined, page, tag
from eval.page.parts import Column, facts, second, section, table
from eval.page.plots import evidence_line
from eval.postmortem import Course, Postmortem, courses, impact, questions, title

_TIMELINE = (Column("at"), Column("who"), Column("what", "wide"), Column("evidence", "wide"))
_AFFECTED = (Column("tenant (hash)"), Column("kind"), Column("requests", "number"))
_STEPS = (Column("from"), Column("share", "number"), Column("conversations", "number"))
_ACTIONS = (Column("action"), Column("owner"), Column("until"))


def postmortem_html(found: Postmortem) -> str:
    return page(
        title(found),
        tag("p", "Plumbline · draft of a post-mortem", class_="kicker"),
        _outcome(found),
        section("Impact", tag("p", impact(found)), _requests(found)),
        section("Timeline", _timeline(found)),
        section(
            "Evidence",
            _note(found),
            _courses(found),
        ),
        section("What was rolled back", changes_html(found.changes)),
        section("Affected requests", _affected(found)),
        section("Steps of the trial", _steps(found)),
        section("Open questions", *(_blank(question) for question in questions(found))),
        section("Actions", table(_ACTIONS, [["to fill in", "", ""]])),
    )


def _outcome(found: Postmortem) -> Html:
    return tag(
        "header",
        tag("span", found.decision.outcome.replace("_", " ").upper(), class_="stamp"),
        tag("h1", title(found)),
        tag("p", found.decision.reason, class_="lead", dir="auto"),
        class_="verdict failed",
    )


def _requests(found: Postmortem) -> Html:
    return facts(
        (
            ("Trial", found.trial),
            ("Began", second(found.started_at)),
            ("Rolled back", second(found.decision.at)),
            ("First request", found.first_request),
            ("Last request", found.last_request),
        )
    )


def _timeline(found: Postmortem) -> Html:
    return table(
        _TIMELINE,
        (
            [
                second(entry.at),
                entry.who,
                entry.what,
                ", ".join(f"{name}: {value}" for name, value in entry.evidence.items()),
            ]
            for entry in found.timeline
        ),
    )


def _note(found: Postmortem) -> Html:
    decided = f" It was {found.decision.metric} that decided." if found.decision.metric else ""
    return tag(
        "p",
        "An e-value is what a bet against the claim of no harm has won so far; at its threshold the claim is "
        f"rejected, at whatever time that is.{decided}",
        class_="soft",
    )


def _courses(found: Postmortem) -> Html:
    return tag("div", *(_course(found, course) for course in courses(found)), class_="courses")


def _course(found: Postmortem, course: Course) -> Html:
    times = [found.seconds(point.at) for point in course.points]
    crossed = f"crossed {second(course.crossed)}" if course.crossed else "never crossed"
    return tag(
        "figure",
        tag("figcaption", tag("strong", course.metric), f" · {crossed}, highest {course.highest:.4g}"),
        evidence_line(times, [point.e_value for point in course.points], course.threshold),
    )


def _affected(found: Postmortem) -> Html:
    return table(
        _AFFECTED, ([tag("code", each.tenant), each.kind, str(each.requests)] for each in found.affected)
    )


def _steps(found: Postmortem) -> Html:
    return table(_STEPS, ([second(step.at), f"{step.share:.1%}", str(step.units)] for step in found.steps))


def _blank(question: str) -> Html:
    return joined(tag("p", question), tag("p", "to fill in", class_="blank"))
