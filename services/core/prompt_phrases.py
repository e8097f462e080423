"""The fixed phrases of the prompts, and how many characters each free text may have."""

MAX_TITLE_CHARS = 300
MAX_SUMMARY_CHARS = 800
MAX_PREFERENCE_CHARS = 1200

TITLE_OPENS = 'Title: "'
TITLE_CLOSES = '"\n'
NO_IMAGE = "(This item has no picture.)\n"
SUMMARY_INSTRUCTION = (
    "Describe this item in one sentence: its subject, its colors, how it is drawn or photographed, "
    "and its mood."
)
PREFERENCE_OPENS = "A user's taste so far: \""
PREFERENCE_CLOSES = '"\n'
BLOCK_OPENS = "A user took these items, oldest first:\n"
LATER_BLOCK_OPENS = "Then the user took these items, oldest first:\n"
SUMMARY_OPENS = '" shows: '
PREFERENCE_INSTRUCTION = (
    "Describe the user's taste now in one or two sentences: the subjects, colors, styles and moods "
    "that prevail, and what prevailed before if it changed."
)
SCORING_PREFERENCE_OPENS = 'The taste of a user: "'
UNKNOWN_PREFERENCE = "Nothing is known of this user yet."
SCORING_QUESTION = "Will this user take this item next? Answer Yes or No."

# The phrases of every prompt. The demo tokenizer has one token for each.
FIXED_PHRASES = (
    TITLE_OPENS,
    NO_IMAGE,
    SUMMARY_INSTRUCTION,
    PREFERENCE_OPENS,
    BLOCK_OPENS,
    LATER_BLOCK_OPENS,
    SUMMARY_OPENS,
    PREFERENCE_INSTRUCTION,
    SCORING_PREFERENCE_OPENS,
    UNKNOWN_PREFERENCE,
    SCORING_QUESTION,
)
