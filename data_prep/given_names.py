"""Given names that are common in Dutch and English theses, in small letters without accents.

Chosen by hand for this project. Names that are ordinary words too (Will, Grace, Mark) are left out where the
word is more frequent than the name.
"""

from __future__ import annotations

_GIVEN_NAMES_TEXT = """
aad aaltje aart abdel abdul abigail achmed adam adriaan adrian agnes ahmed aida aisha aleida alex
alexander alexandra alice alicia ali alina amanda amber amir amina amy ana andre andrea andreas
andrew andy angela anika anil anita anja ank anke ann anna annabel anne annelies annemarie annemiek
annette annie anouk anthony anton antoine antonio arend arie arjan arjen arno arnold arnoud art
arthur artur aslan astrid ayse aysegul aziz barbara barry bart bas bastiaan beatrice ben benjamin
bernard bert bettina bianca birgit bjorn bob boris bram brechje brenda brian brigitte bruno carel
carla carlo carlos carmen carolien carolina caroline caspar catharina catherine cecilia celine
charles charlotte chen chiara chris christa christel christian christiaan christina christine
christopher claire claudia claus colin connie cor corine cornelis cynthia daan dagmar damian dani
daniel daniela danielle danny dave david debbie deborah denise dennis derek diana diane dick
diederik dieter dimitri dinesh dirk dominic dominique donald dorien dorothy douglas ebru eduard
edward edwin eelco ellen elena elif elisa elisabeth elise eliza elizabeth elke els elsa emiel emily
emine emma emre enrique eric erica erik erika ernst erwin esmee esra esther eugene eva evelien
evelyn ewa ewout fabian fadime fareed farid fatima fatma felix femke ferdinand fernando fieke filip
fiona floor floris francesca francesco francis francisco frank frans fred frederik frits gabriel
gabriela geert geertje george gerard gerda gerrit gert gijs giovanni gokhan greetje gregory guido
gunther gustav guus hakan hamza hanna hannah hanneke hans harold harry hassan hasan hatice hedwig
heidi heike heleen helen helena hendrik henk hennie henri henry herman hilde hugo huseyin ian
ibrahim igor ilse imran ineke inge ingrid irene iris isabel isabella isabelle ismail ivan ivo jaap
jack jacob jacqueline jacques jaime james jamie jan jana jane janet janneke janine jannie jasmijn
jason jasper javier jean jeannette jeff jeffrey jelle jennifer jenny jeroen jerome jessica jim jimmy
jip joachim joan joanna joanne job jochem joel joep johan johanna johannes john jolanda jonas
jonathan joost jordan jordi jorge jorien joris jos jose josef joseph josephine joshua joyce juan
judith julia julian juliana julie juliette jurgen jurriaan kaan kai karel karen karin karim karl
karlijn kasper kate katharina katherine kathleen kathryn katie katja katrin kees keith kelly kemal
ken kenneth kevin khadija kim kimberly klaas klaus koen kristin krzysztof kurt lara larissa lars
laura lauren laurens leila leen leendert lena leo leon leonard leonie lianne lieke liesbeth linda
lisa liselotte li lotte louis louise luca lucas lucia lucy luigi luis luuk lydia maaike maarten
machteld madelon magda mahmoud maike malik manon manuel marc marcel marcin marco margaret margot
margriet maria mariam marianne marie marieke marijke marijn marina mario marion marisa marit marjan
marjolein marleen marlies marloes marta martha martijn martin martina martine mathijs matteo matthew
matthias matthijs maurice maurits max mehmet meike melanie melissa merel merve michael michel
michele michelle michiel miguel mike mila milan milou miranda miriam mohamed mohammed mona monica
monika monique mustafa myrthe nadia nadine naomi natalia natalie natasha neil nelleke nick nico
nicholas nicola nicolas nicole niek niels nienke nikki nina noa noah noor nora norbert nuno olaf
oliver olivia olga omar omer onno oscar osman otto pablo pamela patricia patrick patty paul paula
pauline paulo pedro peggy petra peter philip philippe piet pieter pim priya quinten rachel rachid
rajesh ralph ramon raymond rebecca reinier remco renate rene renee ria richard rik rick rita rob
robbert robert roberto robin rodrigo roel roeland roelof roger roland rolf roman romy ron ronald
roos rosa rosalie rosanne rose roy ruben rudolf rutger ruth ruud ryan sabine sabrina said salim sam
samantha samira samuel sander sandra sanne sara sarah sasha saskia scott sebastian sebastiaan selin
selma serge sergio sharon shirley sicco sietske sigrid silvia simon simone sjaak sjoerd sofia sofie
sonja sophia sophie stan stefan stefanie stella stephan stephanie stephen steven stijn sue susan
susanna susanne suzanne sven sylvia tamara tanja tara ted teun theo theodoor theresa thijs thomas
thom tiago tijmen tim timo tina tineke tjeerd tobias tom tommy ton toon trudy tuncay ulrich ursula
valerie vanessa vera veronica victor victoria vincent viola violet walter wang wei wendy werner
wessel wilhelm willem william willemijn wilma wim wouter xander yasmin yasemin ying yolanda yusuf
youssef yvette yvonne zeynep zhang zhao zoe
"""
GIVEN_NAMES = frozenset(_GIVEN_NAMES_TEXT.split())
