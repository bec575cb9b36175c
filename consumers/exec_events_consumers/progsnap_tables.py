"""ProgSnap2 1.0 as data: columns and their types, types of events with what each must and may have, enumerations."""

from __future__ import annotations

from typing import Literal, NamedTuple

VERSION = "1.0"

Type = Literal["ID", "String", "Integer", "Real", "Boolean", "Timestamp", "Enum", "URL", "SourceLocation"]

ENUMS: dict[str, tuple[str, ...]] = {
    "CodeStateRepresentation": ("Table", "Directory", "Git", "Keystroke"),
    "EventOrderScope": ("Global", "Restricted", "None"),
    "EventInitiator": (
        "UserDirectAction",
        "UserIndirectAction",
        "ToolReaction",
        "ToolTimedEvent",
        "InstructorDirectAction",
        "InstructorIndirectAction",
        "TeamMemberDirectAction",
        "TeamMemberIndirectAction",
    ),
    "EditType": (
        "Insert",
        "Delete",
        "Replace",
        "Move",
        "Paste",
        "Undo",
        "Redo",
        "Refactor",
        "Reset",
        "GenericEdit",
    ),
    "CompileResult": ("Success", "Warning", "Error"),
    "ExecutionResult": ("Success", "Timeout", "Error", "TestFailed"),
    "InterventionCategory": ("Feedback", "Hint", "CodeHighlight", "CodeChange", "EarnedGrade"),
}

# Properties of DatasetMetadata.csv, with what stands where one is not given.
PROPERTIES: dict[str, tuple[Type, str]] = {
    "Version": ("String", VERSION),
    "IsEventOrderingConsistent": ("Boolean", "false"),
    "EventOrderScope": ("Enum", "None"),
    "EventOrderScopeColumns": ("String", ""),
    "CodeStateRepresentation": ("Enum", "Table"),
    "ProgramInputLinkTable": ("String", ""),
}

# Columns of MainTable.csv: these must be there, ...
REQUIRED: dict[str, Type] = {
    "EventType": "Enum",
    "EventID": "ID",
    "SubjectID": "ID",
    "ToolInstances": "String",
    "CodeStateID": "ID",
}
# ... these may be, for every type of event, ...
OPTIONAL: dict[str, Type] = {
    "Order": "Integer",
    "ServerTimestamp": "Timestamp",
    "ClientTimestamp": "Timestamp",
    "CourseID": "ID",
    "CourseSectionID": "ID",
    "TermID": "ID",
    "AssignmentID": "ID",
    "AssignmentIsGraded": "Boolean",
    "ProblemID": "ID",
    "ProblemIsGraded": "Boolean",
    "Attempt": "Integer",
    "ExperimentalCondition": "String",
    "TeamID": "ID",
    "LoggingErrorID": "ID",
    "IsFabricatedEvent": "Boolean",
}
# ... and these for the types below that name them.
SPECIFIC: dict[str, Type] = {
    "ParentEventID": "ID",
    "SessionID": "ID",
    "ProjectID": "ID",
    "ResourceID": "ID",
    "CodeStateSection": "SourceLocation",
    "DestinationCodeStateSection": "SourceLocation",
    "CopiedText": "String",
    "EventInitiator": "Enum",
    "EditType": "Enum",
    "CompileResult": "Enum",
    "CompileMessageType": "String",
    "CompileMessageData": "String",
    "SourceLocation": "SourceLocation",
    "ExecutionID": "ID",
    "TestID": "ID",
    "ExecutionResult": "Enum",
    "Score": "Real",
    "ExtraCreditScore": "Real",
    "ProgramInput": "URL",
    "ProgramOutput": "URL",
    "ProgramErrorOutput": "URL",
    "InterventionCategory": "Enum",
    "InterventionType": "String",
    "InterventionMessage": "String",
    "InsertText": "String",
    "DeleteText": "String",
    "DeleteLength": "Integer",
}
COLUMNS: dict[str, Type] = {**REQUIRED, **OPTIONAL, **SPECIFIC}


class Has(NamedTuple):
    """Which of the specific columns a type of event must have, and which it may."""

    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


_FILE = Has(("CodeStateSection",), ("EventInitiator",))
_TWO_FILES = Has(("CodeStateSection", "DestinationCodeStateSection"), ("EventInitiator",))
_DIAGNOSTIC = Has(
    ("ParentEventID", "CodeStateSection", "CompileMessageType", "CompileMessageData", "SourceLocation"),
)
_SCORES = ("Score", "ExtraCreditScore")
_STREAMS = ("ProgramInput", "ProgramOutput", "ProgramErrorOutput")
_PROGRAM = Has(("ExecutionResult",), ("ExecutionID", *_SCORES, *_STREAMS))
_TEST = Has(("ExecutionID", "TestID", "ExecutionResult"), (*_SCORES, *_STREAMS))

EVENT_TYPES: dict[str, Has] = {
    "Session.Start": Has(("SessionID",)),
    "Session.End": Has(("SessionID",)),
    "Project.Open": Has(("ProjectID",)),
    "Project.Close": Has(("ProjectID",)),
    "File.Create": _FILE,
    "File.Delete": _FILE,
    "File.Open": _FILE,
    "File.Close": _FILE,
    "File.Save": _FILE,
    "File.Focus": _FILE,
    "File.Rename": _TWO_FILES,
    "File.Copy": _TWO_FILES,
    "File.Edit": Has(
        ("CodeStateSection", "EditType"),
        ("EventInitiator", "SourceLocation", "InsertText", "DeleteText", "DeleteLength", "ParentEventID"),
    ),
    "File.CopyText": Has(("CopiedText",), ("CodeStateSection", "SourceLocation")),
    "Compile": Has(("CodeStateSection", "CompileResult"), ("EventInitiator",)),
    "Compile.Error": _DIAGNOSTIC,
    "Compile.Warning": _DIAGNOSTIC,
    "Submit": Has((), ("ExecutionID", *_SCORES)),
    "Run.Program": _PROGRAM,
    "Run.Test": _TEST,
    "Debug.Program": _PROGRAM,
    "Debug.Test": _TEST,
    "Resource.View": Has(("ResourceID",)),
    "Intervention": Has(("EventInitiator", "InterventionCategory", "InterventionType", "InterventionMessage")),
}

# Our own side of it: the files that an export has.
MAIN = "MainTable.csv"
METADATA = "DatasetMetadata.csv"
CODE_STATES = "CodeStates/CodeStates.csv"
LINK_FOLDER = "LinkTables"
LINK_EXECUTION = "LinkTables/LinkExecution.csv"
LINK_CODE_STATE = "LinkTables/LinkCodeState.csv"
LINK_LOGGING_ERROR = "LinkTables/LinkLoggingError.csv"

CODE_STATE_COLUMNS = ("CodeStateID", "Code")
LINK_CODE_STATE_COLUMNS = ("CodeStateID", "Body", "CodeAstHash", "CodeBytes", "CodeLines")
LINK_LOGGING_ERROR_COLUMNS = ("LoggingErrorID", "ErrorType", "Explanation")
LINK_EXECUTION_COLUMNS = (
    "ExecutionID",
    "SessionID",
    "CellID",
    "Status",
    "ErrorName",
    "ExecutionCount",
    "StartedAt",
    "FinishedAt",
    "DurationMicroseconds",
    "LinesAdded",
    "LinesRemoved",
    "Outputs",
    "OutputBytes",
    "Client",
    "Trust",
)
MAIN_COLUMNS = (
    "EventType",
    "EventID",
    "Order",
    "SubjectID",
    "ToolInstances",
    "CodeStateID",
    "ServerTimestamp",
    "ClientTimestamp",
    "CourseID",
    "AssignmentID",
    "ProblemID",
    "SessionID",
    "ExecutionID",
    "ExecutionResult",
    "LoggingErrorID",
)

# How an execution ended, as ProgSnap2 says it; of the others there is no Run event.
RESULTS = {
    "ok": "Success",
    "error": "Error",
    "kernel_died": "Error",
    "interrupted": "Timeout",
    "kernel_restarted": "Timeout",
    "kernel_shut_down": "Timeout",
}
UNKNOWN_SUBJECT = "UNKNOWN"
