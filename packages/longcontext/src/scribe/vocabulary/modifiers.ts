/** Adjectives that can stand before a thing, and adverbs of manner. Written for this package. */

const list = (words: string): readonly string[] => words.trim().split(/\s+/);

export const ADJECTIVES = list(`
able alert amber ancient angry anxious awkward azure bare basic bent bitter black bland blank bleak blind blue blunt bold bored bossy brave
brief bright brisk brittle broad broken bronze brown bulky busy calm careful careless cautious charming cheap cheerful clean clear clever
clumsy coarse cold colossal common complete copper cosy costly cracked crafty crazy crimson crisp crooked cruel curious curly damp dangerous
dark deep delicate dense dim dirty dizzy double doubtful dreadful drowsy dry dull dusty eager early eastern elegant empty enormous even exact
faded faint fair faithful famous fancy fearless feeble fierce fine firm flat foggy foolish foreign forgotten fragile fresh friendly frosty
frozen funny gentle gilded glad gloomy golden graceful grand grateful greedy green grey grim guilty handsome happy hard harmless harsh heavy
hidden hollow honest huge humble hungry icy idle ivory jealous jolly keen kind large late lazy lean light little lively lonely long loose
loud lovely loyal lucky mad magic mellow mild misty modest muddy mute mysterious narrow neat nervous new nimble noble noisy northern odd old
pale patient peaceful plain pleasant polite poor precious pretty proud purple quaint quick quiet rapid rare ready red remote restless rich
ripe rocky rough round royal rude rural rusty sad safe salty scarlet secret serious shabby shallow sharp shiny short shy silent silver simple
sleepy slender slow small smooth sober soft solemn solid sour southern sparkling spare steady steep stern stiff stormy strange strict striped
strong stubborn sturdy sudden sunny sweet swift tall tame tender thick thin tidy timid tiny tired tough tranquil true twisted ugly unusual
useful vain vast velvet violet warm wary weak wealthy weary western wet white wicked wide wild wise wooden worn yellow young zealous
`);

export const ADVERBS = list(`
abruptly accurately angrily anxiously awkwardly badly bitterly blindly boldly bravely briefly brightly briskly calmly carefully carelessly
cautiously cheerfully clearly cleverly closely clumsily coldly correctly coyly crossly curiously daintily deeply deliberately dimly
doubtfully dryly eagerly easily elegantly evenly exactly faintly faithfully fiercely firmly fondly foolishly frankly freely gently gladly
gracefully gratefully greedily grimly happily hastily heavily honestly hungrily idly innocently jealously joyfully keenly kindly lazily
lightly loosely loudly loyally madly meekly merrily mildly modestly mysteriously neatly nervously nicely noisily oddly openly patiently
peacefully perfectly plainly politely promptly properly proudly quickly quietly rapidly rarely readily roughly rudely sadly safely
secretly seriously sharply silently simply sleepily slowly smoothly softly solemnly steadily sternly stubbornly suddenly sweetly swiftly
tenderly thoroughly tightly timidly truly vaguely warmly wearily wildly wisely
`);
