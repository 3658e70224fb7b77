"""Users, robots and groups, as the API shows and changes them. A robot is a user without a password.

What waits for the disk, or hashes a password, is done in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated

import trio
from msgspec import Meta

from mxart.access.credentials import MAX_PASSWORD, MIN_PASSWORD
from mxart.access.management import Management
from mxart.access.people import User
from mxart.errors import NotFound
from mxart.web.operations import Asked, Needs, Nothing, Operation, Paged, Record, operation, when

UserName = Annotated[str, Meta(min_length=1, max_length=128, description="A user's name.")]
GroupName = Annotated[str, Meta(min_length=1, max_length=128, description="A group's name.")]
Password = Annotated[str, Meta(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]

HASHING = 2
"""Passwords that are hashed at the same time, in a worker: each takes tens of megabytes."""

MANAGE = Needs("manage")
_OWN = Needs("manage", own="user")


class OneUser(Record, frozen=True, kw_only=True):
    """A user."""

    user: UserName


class OneGroup(Record, frozen=True, kw_only=True):
    """A group."""

    group: GroupName


class OneMember(Record, frozen=True, kw_only=True):
    """A user in a group."""

    group: GroupName
    user: UserName


class UserShown(Record, frozen=True, kw_only=True):
    """A user. `robot`: has no password, only tokens. `disabled`: is kept out, with all tokens."""

    name: str
    robot: bool
    disabled: bool
    groups: list[str]
    created: datetime
    password_changed: datetime | None


class UsersShown(Record, frozen=True, kw_only=True):
    """A page of users."""

    items: list[UserShown]
    next: str = ""


class NewUser(Record, frozen=True, kw_only=True):
    """A user to be made: a password, or `robot`."""

    name: UserName
    password: Annotated[str, Meta(max_length=MAX_PASSWORD)] = ""
    robot: bool = False
    groups: tuple[GroupName, ...] = ()


class UserChange(Record, frozen=True, kw_only=True):
    """What is to become of a user; what is null or left away stays. `groups` are all that he is to be in."""

    disabled: bool | None = None
    groups: tuple[GroupName, ...] | None = None


class GroupShown(Record, frozen=True, kw_only=True):
    """A group."""

    name: str
    members: list[str]


class GroupsShown(Record, frozen=True, kw_only=True):
    """A page of groups."""

    items: list[GroupShown]
    next: str = ""


class NewGroup(Record, frozen=True, kw_only=True):
    """A group to be made, with nobody in it."""

    name: GroupName


def shown(user: User) -> UserShown:
    """A user, without what nobody is to see."""
    return UserShown(
        name=user.name,
        robot=user.robot,
        disabled=user.disabled,
        groups=sorted(user.groups),
        created=when(user.created),
        password_changed=None if user.robot else when(user.changed),
    )


class UserOperations:
    """Users and groups."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self._directory = management.directory
        self._hashing = trio.CapacityLimiter(HASHING)

    def operations(self) -> Iterator[Operation[Record, Record]]:
        """This part of the table."""
        yield operation("listUsers", "GET", "/users", "The users, robots among them.", MANAGE, self._users, tag="users")
        yield operation(
            "createUser", "POST", "/users", "Make a user, or a robot.", MANAGE, self._create, tag="users", status=201
        )
        yield operation("getUser", "GET", "/users/{user}", "A user.", _OWN, self._user, tag="users")
        yield operation(
            "changeUser",
            "PATCH",
            "/users/{user}",
            "Keep a user out or let him in again; say which groups he is in.",
            MANAGE,
            self._change,
            tag="users",
        )
        yield operation(
            "deleteUser",
            "DELETE",
            "/users/{user}",
            "Delete a user with all tokens, at once.",
            MANAGE,
            self._delete,
            tag="users",
        )
        yield operation(
            "listGroups", "GET", "/groups", "The groups and who is in them.", MANAGE, self._groups, tag="groups"
        )
        yield operation(
            "createGroup", "POST", "/groups", "Make a group.", MANAGE, self._create_group, tag="groups", status=201
        )
        yield operation(
            "getGroup", "GET", "/groups/{group}", "A group and who is in it.", MANAGE, self._group, tag="groups"
        )
        yield operation(
            "deleteGroup",
            "DELETE",
            "/groups/{group}",
            "Delete a group; its members stay users.",
            MANAGE,
            self._delete_group,
            tag="groups",
        )
        yield operation(
            "addMember",
            "PUT",
            "/groups/{group}/members/{user}",
            "Put a user into a group.",
            MANAGE,
            self._add,
            tag="groups",
        )
        yield operation(
            "removeMember",
            "DELETE",
            "/groups/{group}/members/{user}",
            "Take a user out of a group.",
            MANAGE,
            self._remove,
            tag="groups",
        )

    async def _users(self, asked: Asked[Paged, Nothing]) -> UsersShown:
        where = asked.where
        users = [user for user in self._directory.users() if user.name > where.after]
        items = [shown(user) for user in users[: where.limit]]
        return UsersShown(items=items, next=items[-1].name if len(users) > len(items) else "")

    async def _create(self, asked: Asked[Nothing, NewUser]) -> UserShown:
        new = asked.body
        groups = f", in {', '.join(new.groups)}" if new.groups else ""
        asked.request.trace.about = f"{'robot' if new.robot else 'user'} {new.name}{groups}"
        create = partial(
            self._management.create_user, new.name, new.password or None, robot=new.robot, groups=new.groups
        )
        return shown(await trio.to_thread.run_sync(create, limiter=self._hashing))

    async def _user(self, asked: Asked[OneUser, Nothing]) -> UserShown:
        return shown(self._management.user(asked.where.user))

    async def _change(self, asked: Asked[OneUser, UserChange]) -> UserShown:
        change = asked.body
        said = [] if change.disabled is None else ["disabled" if change.disabled else "enabled"]
        said += [] if change.groups is None else [f"in {', '.join(change.groups) or 'no group'}"]
        asked.request.trace.about = "; ".join(said)
        return shown(await trio.to_thread.run_sync(self._changed, asked.where.user, change))

    def _changed(self, name: str, change: UserChange) -> User:
        user = self._management.user(name)
        if change.groups is not None:
            known = self._directory.groups()
            for group in change.groups:
                if group not in known:
                    raise NotFound(f"there is no group {group}; there are {', '.join(known)}", subject="groups")
            wanted = frozenset(change.groups)
            for group in sorted(wanted - user.groups):
                self._directory.add_member(group, name)
            for group in sorted(user.groups - wanted):
                self._directory.remove_member(group, name)
        if change.disabled is not None:
            self._directory.set_disabled(name, change.disabled)
        return self._management.user(name)

    async def _delete(self, asked: Asked[OneUser, Nothing]) -> Nothing:
        await trio.to_thread.run_sync(self._directory.delete_user, asked.where.user)
        return Nothing()

    async def _groups(self, asked: Asked[Paged, Nothing]) -> GroupsShown:
        where = asked.where
        groups = [(name, members) for name, members in self._directory.groups().items() if name > where.after]
        items = [GroupShown(name=name, members=members) for name, members in groups[: where.limit]]
        return GroupsShown(items=items, next=items[-1].name if len(groups) > len(items) else "")

    async def _group(self, asked: Asked[OneGroup, Nothing]) -> GroupShown:
        members = self._directory.groups().get(asked.where.group)
        if members is None:
            raise NotFound(f"there is no group {asked.where.group}", subject="group")
        return GroupShown(name=asked.where.group, members=members)

    async def _create_group(self, asked: Asked[Nothing, NewGroup]) -> GroupShown:
        asked.request.trace.about = f"group {asked.body.name}"
        await trio.to_thread.run_sync(self._directory.add_group, asked.body.name)
        return GroupShown(name=asked.body.name, members=[])

    async def _delete_group(self, asked: Asked[OneGroup, Nothing]) -> Nothing:
        await trio.to_thread.run_sync(self._directory.delete_group, asked.where.group)
        return Nothing()

    async def _add(self, asked: Asked[OneMember, Nothing]) -> Nothing:
        await trio.to_thread.run_sync(self._directory.add_member, asked.where.group, asked.where.user)
        return Nothing()

    async def _remove(self, asked: Asked[OneMember, Nothing]) -> Nothing:
        await trio.to_thread.run_sync(self._directory.remove_member, asked.where.group, asked.where.user)
        return Nothing()
